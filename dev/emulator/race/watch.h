/* watch.h: what hooks.cpp hands on. */
#ifndef EMU_WATCH_H
#define EMU_WATCH_H

#include "../engine.h"

namespace emu {

struct Touch {
    const void *memory;
    size_t bytes;
    Access kind;
    const void *code;   /* where in the program */
};
/* Ends the program if another thread touched the same bytes and nothing ordered the two. base: the
   allocation, or the arena of shared memory. */
void check_race(const Touch &touch, Allocation base, bool shared);
void forget_races(const void *memory);

/* Accesses are counted instead of checked. */
extern bool counting;
void count_access(const Touch &touch, Allocation base);

}   // namespace emu

#endif
