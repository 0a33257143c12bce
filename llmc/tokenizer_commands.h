/* tokenizer_commands.h: commands of the program tokenizer. Each gets what main() got, its options from argv[2] on, returns the exit status,
   and dies of the user's mistakes. */
#ifndef LLMC_TOKENIZER_COMMANDS_H
#define LLMC_TOKENIZER_COMMANDS_H

#ifdef __cplusplus
extern "C" {
#endif

int tokenizer_encode_command(int argc, char **argv);    /* text to tokens, as a stream */
int tokenizer_decode_command(int argc, char **argv);    /* and back */
int tokenizer_stats_command(int argc, char **argv);     /* compares vocabularies */
int tokenizer_shards_command(int argc, char **argv);    /* a dataset of documents */

#ifdef __cplusplus
}
#endif
#endif
