package host

import (
	"errors"
	"maps"
	"slices"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
)

// ServerFound is a server that has an address, as a takeover would find it.
type ServerFound struct {
	PID           int
	User, Command string
	Processes     int
	Listens       []string // TCP addresses, and the path that was asked for
	Signal        string   // on which it is told to stop
	Refusal       string   // why it cannot be taken over; empty if it can
}

// FindServers looks who has an address. It changes nothing.
func FindServers(a socket.Address) ([]ServerFound, error) {
	if !takeable(a) {
		return nil, errors.New("only TCP listeners and unix stream sockets with a path can be taken over")
	}
	inUse, err := socket.Occupied(a)
	if err != nil || inUse == nil {
		return nil, err
	}
	if len(inUse.Holders) == 0 {
		return nil, errors.New("cannot see which process has it: " + inUse.Unseen)
	}
	servers, err := findServers(inUse.Holders)
	if err != nil {
		return nil, err
	}
	var found []ServerFound
	for _, s := range servers {
		f := s.describe()
		if a.Unix() {
			f.Listens = append(f.Listens, a.Addr)
		}
		found = append(found, f)
	}
	return found, nil
}

func (s server) describe() ServerFound {
	f := ServerFound{PID: s.PID, User: s.User, Command: s.Command}
	f.Signal = shortName((&Takeover{}).signal(s))
	if f.Signal == "" {
		f.Signal = "--stop-signal"
	}
	refusal := s.takeable(false, restartByCommand)
	tree, err := childproc.Tree(s.PID)
	f.Processes = len(tree)
	listening, err2 := sockdiag.Listening(tree)
	for _, at := range listening {
		f.Listens = append(f.Listens, at.String())
	}
	slices.Sort(f.Listens)
	duplicates, err3 := childproc.DuplicateSockets(slices.Collect(maps.Keys(listening)), tree)
	closeAll(duplicates)
	if err := errors.Join(refusal, err, err2, s.mayNot(err3)); err != nil {
		f.Refusal = err.Error()
	}
	return f
}
