/* curve.c: see curve.h. */
#define _GNU_SOURCE   /* environ */
#include "curve.h"

#include "error.h"
#include "files.h"
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The script beside the program's own file, in fresh memory; NULL where there is none. */
static char *find_script(void) {
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return NULL;
    program[length] = 0;
    *strrchr(program, '/') = 0;
    char *script = path_join(program, "scripts/plot.py");
    if (path_exists(script)) return script;
    free(script);
    return NULL;
}

/* Starts it with nothing to read and nobody to hear it; 0 if it cannot be. */
static pid_t start(char *const *command) {
    posix_spawn_file_actions_t files;
    pid_t child = 0;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    if (posix_spawnp(&child, command[0], &files, NULL, command, environ) != 0) child = 0;
    posix_spawn_file_actions_destroy(&files);
    return child;
}

/* True if it ends well before that time. It does not outlive this call. */
static bool ends_well(pid_t child, double until, const volatile sig_atomic_t *give_up) {
    const struct timespec pause = {0, 10000000};
    int status = 1;
    pid_t ended;
    while ((ended = waitpid(child, &status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if (*give_up || machine_seconds() > until) kill(child, SIGKILL);
        nanosleep(&pause, NULL);
    }
    return ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void curve_draw(const char *run, double seconds, const volatile sig_atomic_t *give_up) {
    static const char *const pythons[] = {"python3", "/usr/bin/python3"};
    char *script = find_script();
    if (!script) return;
    char *picture = path_join(run, "curve.png"), *unfinished = path_join(run, ".curve.png");
    double until = machine_seconds() + seconds;
    bool drawn = false;
    for (int i = 0; i < 2 && !drawn && !*give_up; i++) {
        char *const command[] = {(char *)pythons[i], script, (char *)run, "-o", unfinished, NULL};
        pid_t child = start(command);
        drawn = child > 0 && ends_well(child, until, give_up);
    }
    if (drawn) rename(unfinished, picture);
    else unlink(unfinished);
    free(unfinished);
    free(picture);
    free(script);
}
