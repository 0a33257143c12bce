/* algorithms.cu: see algorithms.cuh. Host code only: the emulator runs it too. */
#include "algorithms.cuh"

#include "gemm.cuh"

#include <fstream>
#include <map>
#include <sstream>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct Choice {
    std::string how;
    bool timed, used;
};
typedef std::map<std::string, Choice> Choices;

static Choices choices;
static std::string head, file;
static bool unsaved;

static const char letters_and_digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";

/* Takes all of the text, or nothing of it; says what is wrong with it, or returns NULL. */
static const char *read_text(std::istream &text, bool timed, bool used) {
    std::string line;
    Choices read;
    std::getline(text, line);
    if (line != head) return "it is not of this device and library";
    while (std::getline(text, line)) {
        const size_t equals = line.find(" = ");
        const std::string how = equals == std::string::npos ? "" : line.substr(equals + 3);
        if (how.empty() || how.find_first_not_of(letters_and_digits) != std::string::npos) return "it is damaged";
        read[line.substr(0, equals)] = {how, timed, used};
    }
    for (const auto &choice : read) choices[choice.first] = choice.second;
    return NULL;
}

static std::string write_text(bool Choice::*which) {
    std::string text = head + "\n";
    for (const auto &choice : choices)
        if (choice.second.*which) text += choice.first + " = " + choice.second.how + "\n";
    return text;
}

/* Under a temporary name first: another run may be reading. */
static void save() {
    if (!unsaved || file.empty()) return;
    unsaved = false;
    const std::string temporary = file + "." + std::to_string(getpid()) + ".new";
    std::ofstream stream(temporary);
    stream << write_text(&Choice::timed);
    stream.close();
    if (stream && rename(temporary.c_str(), file.c_str()) == 0) return;
    remove(temporary.c_str());
    fprintf(stderr, "warning: the matmul algorithms cannot be kept in %s; they will be timed again in the next run\n", file.c_str());
}

void algorithms_open(const std::string &machine, const char *path) {
    static const int at_exit = atexit(save);
    (void)at_exit;
    save();   /* into the file named before */
    head = "matmul algorithms, " + machine;
    file = path ? path : "";
    std::ifstream stream(file);
    const char *fault = file.empty() || !stream ? NULL : read_text(stream, true, false);
    if (fault) fprintf(stderr, "warning: the file of matmul algorithms %s is ignored: %s\n", path, fault);
}

const std::string *algorithms_find(const std::string &what) {
    const auto found = choices.find(what);
    if (found == choices.end()) return NULL;
    found->second.used = true;
    return &found->second.how;
}

void algorithms_choose(const std::string &what, const std::string &how, bool timed) {
    choices[what] = {how, timed, true};
    unsaved |= timed;
}

const char *gemm_algorithms(void) {
    static std::string text;
    save();
    text = head.empty() ? "" : write_text(&Choice::used);
    return text.c_str();
}

int gemm_set_algorithms(const char *text) {
    std::istringstream stream(text);
    return read_text(stream, false, true) == NULL;
}
