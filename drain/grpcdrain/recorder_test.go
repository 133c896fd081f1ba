package grpcdrain

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// recorder keeps what a server sends on one connection.
type recorder struct {
	more chan struct{} // has an element if something was sent since the last receive
	mu   sync.Mutex
	sent []byte
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{}, 1)} }

func (r *recorder) option() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		return &recorded{conn, r}, err
	})
}

type recorded struct {
	net.Conn
	by *recorder
}

func (c *recorded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.by.add(p[:n])
	return n, err
}

func (r *recorder) add(sent []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, sent...)
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// names gives the frames that matter to a drain, of the layout of RFC 9113, section 4.1: "leave" is the GOAWAY that
// allows all streams, "left after 3" one that allows the streams up to 3, "end of 1" the end of stream 1.
func (r *recorder) names() (names []string) {
	const headers, goAway, endStream = 1, 7, 1
	r.mu.Lock()
	defer r.mu.Unlock()
	for rest := r.sent; len(rest) >= 9; {
		length := int(rest[0])<<16 | int(rest[1])<<8 | int(rest[2])
		kind, flags, stream := rest[3], rest[4], binary.BigEndian.Uint32(rest[5:])
		if len(rest) < 9+length {
			break
		}
		payload := rest[9 : 9+length]
		rest = rest[9+length:]
		switch {
		case kind == goAway && binary.BigEndian.Uint32(payload) == math.MaxInt32:
			names = append(names, "leave")
		case kind == goAway:
			names = append(names, fmt.Sprint("left after ", binary.BigEndian.Uint32(payload)))
		case kind == headers && flags&endStream != 0:
			names = append(names, fmt.Sprint("end of ", stream))
		}
	}
	return names
}

func (r *recorder) await(t *testing.T, name string) {
	t.Helper()
	for timeout := time.After(testTimeout); !slices.Contains(r.names(), name); {
		select {
		case <-r.more:
		case <-timeout:
			t.Fatalf("the server does not send %q but %v", name, r.names())
		}
	}
}
