package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/gracerun/grace/supervisor/reexec"
)

// stateVersion counts the forms of a document. A grace process reads its own and all before;
// a field that is added with a meaningful zero value makes no new one.
const stateVersion = 1

// handoverState is what one grace process leaves to the next. It has the app's environment, and is
// never written to a disk.
type handoverState struct {
	Version int
	Grace   string // the program's version
	PID     int
	Machine machine.Snapshot
	Host    host.HostState
	Stored  []string `json:",omitempty"` // with the service manager
}

func (d *handoverState) snapshot() (reexec.Snapshot, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return reexec.Snapshot{}, fmt.Errorf("cannot encode grace's state: %w", err)
	}
	return reexec.Snapshot{Document: text, Files: d.Host.Files()}, nil
}

// read refuses what only a newer grace process understands.
func read(text []byte) (*handoverState, error) {
	if err := checkVersion(text); err != nil {
		return nil, err
	}
	d := &handoverState{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("the state of the old grace process is invalid: %w", err)
	}
	return d, d.check()
}

func checkVersion(text []byte) error {
	var version struct {
		Version int
		Grace   string
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return fmt.Errorf("the state of the old grace process is invalid: %w", err)
	}
	if version.Version < 1 || version.Version > stateVersion {
		return fmt.Errorf("the state of the old grace process has version %d (grace %s), but this grace supports at most %d: use a newer grace", version.Version, version.Grace, stateVersion)
	}
	return nil
}

// check compares the two halves of a document: each instance with a process has its app.
func (d handoverState) check() error {
	apps := map[int]bool{}
	for _, a := range d.Host.Apps {
		apps[a.Instance] = true
	}
	for _, g := range d.Machine.Generations {
		if _, ok := d.Host.Launches[g.Named()]; !ok && g.Stage != machine.StagePreparing {
			return fmt.Errorf("the state does not say how generation %d is started", g.Number)
		}
		for _, i := range g.Instances {
			if apps[i.ID] != (i.PID != 0) {
				return fmt.Errorf("the state has instance %d without its process, or the other way round", i.ID)
			}
			delete(apps, i.ID)
		}
	}
	if len(apps) > 0 {
		return errors.New("the state has processes of no instance")
	}
	return nil
}
