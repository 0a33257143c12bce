/* nfc.h: Unicode's normal form C (UAX 15), by utf8proc: letter and mark become one character where there is one for both. */
#ifndef LLMC_NFC_H
#define LLMC_NFC_H

#include "byte_buffer.h"
#include "files.h"

#ifdef __cplusplus
extern "C" {
#endif

/* False with the reason if this build has no utf8proc. */
bool nfc_available(char error[ERROR_SIZE]);

/* The normal form of text[*length], whose bytes go to *length: text itself where nothing in it can change, else in the buffer, in place of what
   is there. What is not UTF-8 stays as it is, and is a neighbour that nothing joins. Needs nfc_available. */
const char *nfc(const char *text, size_t *length, ByteBuffer *buffer);

#ifdef __cplusplus
}
#endif
#endif
