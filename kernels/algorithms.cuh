/* algorithms.cuh: which algorithm does which product, as text. The first line names the library and the device; each other line is
   "what = how". A file of such text keeps what was timed from one run to the next; a checkpoint keeps all that is in use. */
#ifndef KERNELS_ALGORITHMS_CUH
#define KERNELS_ALGORITHMS_CUH

#include <string>

/* `machine` names library and device. If path is not NULL and there is such a file, its choices are taken over; one that is damaged or of
   another machine is ignored with a warning. The file is rewritten, if something new was timed, by gemm_algorithms and at exit. */
void algorithms_open(const std::string &machine, const char *path);

/* How `what` is to be done, or NULL if that was never chosen; from now on it counts as in use. Valid until `what` is chosen again. */
const std::string *algorithms_find(const std::string &what);

/* `how` is of letters and digits; timed: it goes to the file. */
void algorithms_choose(const std::string &what, const std::string &how, bool timed);

#endif
