/* nccl_standin.h: what the stand-in for NCCL offers to dev/nccl_test.c besides NCCL's own functions. */
#ifndef DEV_NCCL_STANDIN_H
#define DEV_NCCL_STANDIN_H

#include <nccl.h>

typedef void (*NcclListener)(const char *name, const void *from, void *to, size_t count, ncclDataType_t type, cudaStream_t stream);
/* From now on it is told of every collective; NULL: nobody is. */
void nccl_standin_listen(NcclListener heard);

#endif
