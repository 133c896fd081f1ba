package supervisor

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/host"
)

// keptOf is what a service manager gives back that has kept these states.
func keptOf(t *testing.T, states ...*savedState) host.Kept {
	t.Helper()
	w := &host.Storing{Has: func(string) bool { return false }, Wanted: map[string]bool{}, Fresh: map[string]int{}}
	for _, d := range states {
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		memory, err := host.NewStateMemory()
		if err == nil {
			err = memory.Write(d.Written, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.AddMemory(memory)
		memory.Close()
	}
	return w.Fresh
}

// Of the states in the file and with the service manager the newest one that is valid counts. The Grace of each says which it is.
func TestNewestStateIsAdopted(t *testing.T) {
	living := sleeper(t)
	is := func(grace string, written uint64, change func(d *savedState)) func(d savedState) *savedState {
		return func(d savedState) *savedState {
			d.Grace, d.Written = grace, written
			if change != nil {
				change(&d)
			}
			return &d
		}
	}
	newer := func(d *savedState) { d.Version = stateVersion + 1 }
	other := func(d *savedState) { d.Name = "other" }
	for name, c := range map[string]struct {
		file *savedStateOf
		kept []savedStateOf
		mode AdoptMode
		want string // the Grace of what is adopted
		why  string
	}{
		"the file is newer":              {ptr(is("file", 2, nil)), []savedStateOf{is("kept", 1, nil)}, AdoptAuto, "file", ""},
		"the kept one is newer":          {ptr(is("file", 1, nil)), []savedStateOf{is("kept", 2, nil)}, AdoptAuto, "kept", ""},
		"two are kept":                   {ptr(is("file", 1, nil)), []savedStateOf{is("old", 2, nil), is("kept", 3, nil)}, AdoptAuto, "kept", ""},
		"the file has no time":           {ptr(is("file", 0, nil)), []savedStateOf{is("kept", 2, nil)}, AdoptAuto, "kept", ""},
		"there is no file":               {nil, []savedStateOf{is("kept", 2, nil)}, AdoptAuto, "kept", ""},
		"nothing is to be adopted":       {nil, []savedStateOf{is("kept", 2, nil)}, AdoptNever, "", ""},
		"the file is invalid":            {ptr(is("file", 3, newer)), []savedStateOf{is("kept", 2, nil)}, AdoptAuto, "kept", ""},
		"the kept one is invalid":        {ptr(is("file", 1, nil)), []savedStateOf{is("kept", 2, newer)}, AdoptAuto, "file", ""},
		"only an invalid one is kept":    {nil, []savedStateOf{is("kept", 2, newer)}, AdoptAuto, "", "use a newer grace"},
		"the kept one is of another app": {nil, []savedStateOf{is("kept", 2, other)}, AdoptAuto, "", ""},
		"its grace process lives": {nil, []savedStateOf{is("kept", 2, func(d *savedState) { d.PID, d.Birth = os.Getpid(), childproc.OwnBirth() })},
			AdoptAuto, "", "still runs"},
		"its app has ended": {nil, []savedStateOf{is("kept", 2, func(d *savedState) {
			d.Host.Apps = append([]host.InstanceProcessState{}, d.Host.Apps...)
			d.Host.Apps[0].Main.Birth.Started--
		})}, AdoptAuto, "", ""},
		"its directory is none of grace's": {nil, []savedStateOf{is("kept", 2, func(d *savedState) {
			d.Host.Apps = append([]host.InstanceProcessState{}, d.Host.Apps...)
			d.Host.Runtime, d.Host.Apps[0].Notify.Path = "/etc/grace-run-1", "/etc/grace-run-1/notify-X"
		})}, AdoptAuto, "", "is not where"},
	} {
		t.Run(name, func(t *testing.T) {
			d := anySaved(t, living.PID)
			d.Host.Apps[0].Main = living.State()
			path := stateIn(t, d)
			writeFile(t, path, d, c.file)
			var kept []*savedState
			for _, of := range c.kept {
				kept = append(kept, of(*d))
			}
			s := &service{options: Options{Name: "web", Adopt: c.mode}, kept: keptOf(t, kept...)}
			found, err := s.findAbandoned()
			if (err != nil) != (c.why != "") || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Errorf("it fails with %v", err)
			}
			if got := graceOf(found); got != c.want {
				t.Errorf("it adopts the state of %q", got)
			}
			if found == nil {
				return
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("of the directory: %v, %v", info, err)
			}
			found.dir.Leave()
		})
	}
}

type savedStateOf = func(savedState) *savedState

func ptr[T any](v T) *T { return &v }

func graceOf(found *abandoned) string {
	if found == nil {
		return ""
	}
	return found.state.Grace
}

// writeFile leaves no directory where there is to be no file.
func writeFile(t *testing.T, path string, d *savedState, of *savedStateOf) {
	t.Helper()
	if of == nil {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := json.Marshal((*of)(*d))
	if err == nil {
		err = os.WriteFile(path+"/state", text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
