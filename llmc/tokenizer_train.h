/* tokenizer_train.h: the command `tokenizer train`. */
#ifndef LLMC_TOKENIZER_TRAIN_H
#define LLMC_TOKENIZER_TRAIN_H

#ifdef __cplusplus
extern "C" {
#endif

/* What main() got; the options begin at argv[2]. Returns the exit status; dies of the user's mistakes. */
int tokenizer_train_command(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
