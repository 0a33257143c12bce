/* frames.h: messages over a TCP connection that does not block: a header (a magic word with the number of the protocol, a type, a length), then so
   many bytes. Bytes wait in memory until the network takes them, and arrived ones until a message is whole. All machines of a run are of one kind:
   no byte order is agreed on, and another one's magic word does not fit. */
#ifndef LLMC_FRAMES_H
#define LLMC_FRAMES_H

#include "byte_buffer.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    FRAME_HELLO = 1,    /* a rank introduces itself (rendezvous.c) */
    FRAME_REFUSED,      /* no place here for that rank: a sentence that it dies with */
    FRAME_TABLE,        /* all have come: who they are */
    FRAME_PIECE,        /* of a gather, to rank 0 (watch.c) */
    FRAME_RESULT,       /* of a gather, from rank 0 */
    FRAME_HEARTBEAT,
    FRAME_ABORT,        /* a rank died of this sentence */
    FRAME_ENDED,        /* rank 0 has told the user why; all leave */
    FRAME_BYE           /* this rank's work is done; from rank 0: that of all */
} FrameType;

typedef struct {
    int socket;         /* -1: closed */
    ByteBuffer in, out;
    size_t taken, sent; /* of in, of out */
} Connection;

typedef struct {
    FrameType type;
    const char *bytes;  /* until the next connection_read */
    size_t count;
} Frame;

/* Puts a message of two parts into the queue; connection_write sends. */
void connection_put(Connection *c, FrameType type, const void *head, size_t head_bytes, const void *rest, size_t rest_bytes);
/* Sends what the network takes now. False if the connection is gone. */
bool connection_write(Connection *c);
bool connection_has_more(const Connection *c);   /* to send */
/* Takes in what has arrived. False if the other side has closed, or is gone; what came before may still be there. */
bool connection_read(Connection *c);
/* The next whole message: 1; 0 if there is none yet; -1 if what came is no message, or one of more than `most` bytes. */
int connection_next(Connection *c, Frame *frame, size_t most);
void connection_close(Connection *c);

#endif
