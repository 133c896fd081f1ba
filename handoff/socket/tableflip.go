package socket

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gracerun/grace/handoff/internal/tableflip"
	"golang.org/x/sys/unix"
)

// tellTableflip plays the parent of github.com/cloudflare/tableflip: descriptor 3 takes the byte 42, descriptor 4
// gives the sockets' keys and ends when the parent has exited. An app finds its socket by the network and address it
// writes itself, so the words of --listen have to be the same.
func tellTableflip(g *SocketPlan, _ PlanRequest, sockets []heldSocket) error {
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot create the pipes of tableflip: %w", err)
	}
	g.ready, g.given = ready, append(g.given, readyEnd)
	namesEnd, names, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot create the pipes of tableflip: %w", err)
	}
	g.Predecessor, g.given = names, append(g.given, namesEnd)
	if err := writeKeys(names, sockets); err != nil {
		return fmt.Errorf("cannot send tableflip the names of %d sockets: %w", len(sockets), err)
	}
	g.Files = append(g.Files, int(readyEnd.Fd()), int(namesEnd.Fd()))
	g.set(tableflip.Variable, "yes")
	return nil
}

func writeKeys(pipe *os.File, sockets []heldSocket) error {
	keys := make([][]string, len(sockets))
	for i, s := range sockets {
		kind := "listener"
		if s.network == "unixgram" || strings.HasPrefix(s.network, "udp") {
			kind = "packet"
		}
		keys[i] = []string{kind, s.network, s.addr}
	}
	var text bytes.Buffer
	if err := gob.NewEncoder(&text).Encode(keys); err != nil {
		return err
	}
	return writeOnce(pipe, text.Bytes())
}

// writeOnce does not wait for room: nobody reads the pipe yet.
func writeOnce(pipe *os.File, text []byte) error {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = conn.Write(func(fd uintptr) bool {
		n, failed = unix.Write(int(fd), text)
		return true
	})
	if err == nil && failed == nil && n < len(text) {
		return io.ErrShortWrite
	}
	return errors.Join(err, failed)
}
