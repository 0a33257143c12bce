/* frames.c: see frames.h. */
#include "frames.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* "LLMT" and the number of the protocol, which changes with every change of a message. */
enum { PROTOCOL = 1 };
static const uint32_t magic = 0x544d4c4cu ^ (uint32_t)PROTOCOL << 24;

typedef struct {
    uint32_t magic, type;
    uint64_t count;
} Header;

enum { READ_AT_ONCE = 1 << 20, KEEP = 1 << 20 };

void connection_put(Connection *c, FrameType type, const void *head, size_t head_bytes, const void *rest, size_t rest_bytes) {
    Header header = {magic, type, head_bytes + rest_bytes};
    if (c->socket < 0) return;
    byte_buffer_append(&c->out, &header, sizeof header);
    if (head_bytes) byte_buffer_append(&c->out, head, head_bytes);
    if (rest_bytes) byte_buffer_append(&c->out, rest, rest_bytes);
}

bool connection_has_more(const Connection *c) { return c->socket >= 0 && c->sent < c->out.count; }

bool connection_write(Connection *c) {
    while (connection_has_more(c)) {
        ssize_t n = send(c->socket, c->out.bytes + c->sent, c->out.count - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        c->sent += (size_t)n;
    }
    byte_buffer_clear(&c->out, KEEP);
    c->sent = 0;
    return true;
}

/* What is left of a message that is not whole moves to the front. */
static void forget_taken(Connection *c) {
    if (!c->taken) return;
    c->in.count -= c->taken;
    memmove(c->in.bytes, c->in.bytes + c->taken, c->in.count);
    c->taken = 0;
    if (!c->in.count) byte_buffer_clear(&c->in, KEEP);
}

bool connection_read(Connection *c) {
    if (c->socket < 0) return false;
    forget_taken(c);
    for (size_t got = 0; got < READ_AT_ONCE;) {
        byte_buffer_reserve(&c->in, 65536);
        ssize_t n = recv(c->socket, c->in.bytes + c->in.count, 65536, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        if (n == 0) return false;
        c->in.count += (size_t)n;
        got += (size_t)n;
    }
    return true;
}

int connection_next(Connection *c, Frame *frame, size_t most) {
    Header header;
    size_t there = c->in.count - c->taken;
    /* A stranger is known by its first word. */
    if (there < sizeof header) return there >= sizeof magic && memcmp(c->in.bytes + c->taken, &magic, sizeof magic) != 0 ? -1 : 0;
    memcpy(&header, c->in.bytes + c->taken, sizeof header);
    if (header.magic != magic || header.type < FRAME_HELLO || header.type > FRAME_BYE || header.count > most) return -1;
    if (there - sizeof header < header.count) return 0;
    *frame = (Frame){(FrameType)header.type, c->in.bytes + c->taken + sizeof header, header.count};
    c->taken += sizeof header + header.count;
    return 1;
}

void connection_close(Connection *c) {
    if (c->socket >= 0) close(c->socket);
    byte_buffer_free(&c->in);
    byte_buffer_free(&c->out);
    *c = (Connection){.socket = -1};
}
