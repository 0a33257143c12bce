/* sdpa_driver.c: a libcuda.so.1 for a machine without a GPU, for sdpa_plan alone. It takes every kernel that cuDNN compiles, and runs none:
   with it cuDNN makes its plans to the end, where the toolkit's stub of the driver stops at loading the kernel. */

enum { SUCCESS = 0, NO_DEVICE = 100 };

static int kernel;   /* what every handle points to */

int cuInit(unsigned flags) { (void)flags; return SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuGetErrorName(int error, const char **name) { *name = error ? "CUDA_ERROR_NO_DEVICE" : "CUDA_SUCCESS"; return SUCCESS; }
int cuGetErrorString(int error, const char **text) { *text = error ? "there is no device" : "no error"; return SUCCESS; }

int cuLibraryLoadData(void **library) { *library = &kernel; return SUCCESS; }
int cuLibraryLoadFromFile(void **library) { *library = &kernel; return SUCCESS; }
int cuLibraryUnload(void *library) { (void)library; return SUCCESS; }
int cuLibraryGetKernel(void **found) { *found = &kernel; return SUCCESS; }
int cuKernelGetAttribute(int *value) { *value = 0; return SUCCESS; }
int cuKernelSetAttribute(void) { return SUCCESS; }

#define REFUSED(name) int name(void) { return NO_DEVICE; }
REFUSED(cuCtxGetCurrent)
REFUSED(cuCtxGetLimit)
REFUSED(cuCtxPopCurrent)
REFUSED(cuCtxPushCurrent)
REFUSED(cuDeviceGet)
REFUSED(cuDeviceGetCount)
REFUSED(cuGetExportTable)
REFUSED(cuLaunchCooperativeKernel)
REFUSED(cuLaunchKernel)
REFUSED(cuLaunchKernelEx)
REFUSED(cuLinkAddData)
REFUSED(cuLinkComplete)
REFUSED(cuLinkCreate)
REFUSED(cuLinkDestroy)
REFUSED(cuOccupancyMaxPotentialClusterSize)
REFUSED(cuStreamGetCtx)
