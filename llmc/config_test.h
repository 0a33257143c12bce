/* config_test.h: architectures for the tests of what describes them. */
#ifndef LLMC_CONFIG_TEST_H
#define LLMC_CONFIG_TEST_H

#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static char error[ERROR_SIZE];

/* The config of a preset (NULL: none) with settings on top. */
static inline bool configure(Config *c, const char *preset, const char *settings) {
    Options o;
    options_defaults(&o);
    if (!options_parse_text(&o, settings, strlen(settings), "test", error)) fail_msg("%s", error);
    if (preset) assert_true(config_preset(&o, preset));
    bool ok = config_from_options(c, &o, error);
    options_release(&train_options, &o);
    return ok;
}

#endif
