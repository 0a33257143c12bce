/* nccl_standin.c: a libnccl.so.2 for a machine without a GPU, which passes on what it is asked to whoever listens, and does nothing. dev/nccl_test.c
   uses it. Environment: NCCL_STANDIN_FAILS=init|start|later makes that fail. */
#include "nccl_standin.h"

#include <stdlib.h>
#include <string.h>

static NcclListener listener;
void nccl_standin_listen(NcclListener heard) { listener = heard; }

struct ncclComm {
    int rank, ranks;
};

static int fails(const char *when) {
    const char *wanted = getenv("NCCL_STANDIN_FAILS");
    return wanted && strcmp(wanted, when) == 0;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id->internal, 'i', sizeof id->internal);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
    for (size_t i = 0; i < sizeof id.internal; i++)
        if (id.internal[i] != 'i') return ncclInvalidArgument;
    if (fails("init") || rank < 0 || rank >= ranks) return ncclSystemError;
    *comm = malloc(sizeof **comm);
    (*comm)->rank = rank;
    (*comm)->ranks = ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    free(comm);
    return ncclSuccess;
}

static ncclResult_t pass_on(const char *name, const void *from, void *to, size_t count, ncclDataType_t type, cudaStream_t stream) {
    if (fails("start")) return ncclUnhandledCudaError;
    if (listener) listener(name, from, to, count, type, stream);
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    (void)comm;
    return op == ncclSum ? pass_on("AllReduce", from, to, count, type, stream) : ncclInvalidArgument;
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    (void)comm;
    return op == ncclSum ? pass_on("ReduceScatter", from, to, count, type, stream) : ncclInvalidArgument;
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
    (void)comm;
    return pass_on("AllGather", from, to, count, type, stream);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result) {
    (void)comm;
    *result = fails("later") ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) { return result == ncclRemoteError ? "remote error" : "some error"; }
const char *ncclGetLastError(ncclComm_t comm) { return comm ? "cable unplugged" : ""; }
