package handoff

import (
	"encoding/gob"
	"fmt"
	"os"
	"strings"
	"time"
)

// namesTimeout is reached only when the names do not fit into the pipe, which nobody reads yet.
const namesTimeout = 100 * time.Millisecond

// tellTableflip plays the parent of github.com/cloudflare/tableflip: descriptor 3 takes the byte 42, descriptor 4
// gives the sockets' keys and ends when the parent has exited. An app finds its socket by the network and address it
// writes itself, so the words of --listen have to be the same.
func tellTableflip(g *Grant, _ Issue, sockets []Socket) error {
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make the pipes of tableflip: %w", err)
	}
	g.Ready, g.given = ready, append(g.given, readyEnd)
	namesEnd, names, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make the pipes of tableflip: %w", err)
	}
	g.Predecessor, g.given = names, append(g.given, namesEnd)
	if err := writeKeys(names, sockets); err != nil {
		return fmt.Errorf("cannot tell tableflip the names of %d sockets: %w", len(sockets), err)
	}
	g.Files = append(g.Files, int(readyEnd.Fd()), int(namesEnd.Fd()))
	g.set("TABLEFLIP_HAS_PARENT_7DIU3", "yes")
	return nil
}

func writeKeys(pipe *os.File, sockets []Socket) error {
	keys := make([][]string, len(sockets))
	for i, s := range sockets {
		kind := "listener"
		if s.Network == "unixgram" || strings.HasPrefix(s.Network, "udp") {
			kind = "packet"
		}
		keys[i] = []string{kind, s.Network, s.Addr}
	}
	if err := pipe.SetWriteDeadline(time.Now().Add(namesTimeout)); err != nil {
		return err
	}
	return gob.NewEncoder(pipe).Encode(keys)
}
