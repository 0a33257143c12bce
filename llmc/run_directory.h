/* run_directory.h: what a run has of its own in its directory, which may hold the directories of other runs too, and how an earlier run makes room
   for a new one. */
#ifndef LLMC_RUN_DIRECTORY_H
#define LLMC_RUN_DIRECTORY_H

#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

/* True if training puts an entry of that name into the run's directory, or leaves one when it is killed. */
bool run_owns(const char *name);

/* Where the directory holds a run, moves it to the first free of DIRECTORY.1, DIRECTORY.2 and so on; *kept is its new place in fresh memory, or NULL
   where there is no run. A directory that holds nothing else goes as a whole, by one rename, and is missing then. Else, and where the directory is a
   symbolic link (the new place is beside what it points to), the run's own entries go, one by one, by way of DIRECTORY.N.moving; if the program is
   killed on the way, the next call moves the rest. The lock, which the caller holds, stays. False with the reason if that cannot be done. */
bool run_set_aside(const char *run, char **kept, char error[ERROR_SIZE]);

/* True if the checkpoint's directory, links resolved, lies in the run's own directory, and not in that of another run below it. */
bool run_has_checkpoint(const char *run, const char *checkpoint);
/* The directory of the run that the checkpoint belongs to, in fresh memory; NULL if it lies in none. */
char *run_of_checkpoint(const char *checkpoint);

#ifdef __cplusplus
}
#endif
#endif
