package compare

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// task is one measurement, done by a process of its own: what it leaves is found and killed, and several can go on at once.
type task struct {
	Tool, Scenario string
	Ending         ending
	Grace, App     string
}

// taskTime is far more than any task takes.
const taskTime = 2 * time.Minute

// perform is all of that process.
func (t task) perform() result {
	r := result{task: t}
	time.AfterFunc(taskTime, leave)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		leave()
	}()
	if err := t.measure(&r); err != nil {
		r.Failure = err.Error()
	}
	sweep()
	return r
}

// leave ends this process and all below it.
func leave() {
	sweep()
	os.Exit(1)
}

func (t task) measure(r *result) error {
	if err := adoptOrphans(); err != nil {
		return err
	}
	tool, sc, err := t.find()
	if err != nil {
		return err
	}
	backend, err := startBackend(programs{t.Grace, t.App})
	if err != nil {
		return err
	}
	defer backend.remove()
	p, err := newPlace(backend.programs, backend.address)
	if err != nil {
		return err
	}
	defer p.remove()
	if err := t.play(p, tool, sc, r); err != nil {
		return fmt.Errorf("%w\n%s", err, p.tail())
	}
	return nil
}

func (t task) play(p *place, of tool, sc scenario, r *result) error {
	s := server{t.Ending, sc.delay}
	running, err := of.start(p, s)
	if err != nil {
		return err
	}
	defer running.stop()
	if _, err := awaitVersion(p.address, 1, firstTime); err != nil {
		return fmt.Errorf("%s does not serve: %w", of.name, err)
	}
	clients, err := invite(p.address)
	if err != nil {
		return err
	}
	bare := func() ([]string, *place, error) { return bareCommand(p, of, s) }
	stage := &stage{p, running, clients, 1, sc.fault, bare, r}
	err = sc.play(stage)
	r.counted = clients.leave()
	return err
}

func (t task) isTimed() bool {
	return slices.Contains([]string{spacedName, backName, slowName}, t.Scenario)
}

// inProcess starts this program again.
func (t task) inProcess() result {
	r, err := t.start()
	if err != nil {
		return result{task: t, Failure: err.Error()}
	}
	return r
}

func (t task) start() (r result, err error) {
	text, err := json.Marshal(t)
	if err != nil {
		return r, err
	}
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	folder, err := os.MkdirTemp("", "grace-compare-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(folder)                      // the process may have been killed before it could do so
	if err := os.Chmod(folder, 0o755); err != nil { // some servers change to another user
		return r, err
	}
	c := exec.Command(self, "compare", "task", string(text))
	c.Env, c.Stderr = append(os.Environ(), "TMPDIR="+folder), os.Stderr
	out, err := c.Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

func (t task) find() (tool, scenario, error) {
	ofTool, err := choose(t.Tool, tools(), func(t tool) string { return t.name })
	if err != nil {
		return tool{}, scenario{}, err
	}
	ofCase, err := choose(t.Scenario, scenarios(), func(s scenario) string { return s.name })
	if err != nil {
		return tool{}, scenario{}, err
	}
	return ofTool[0], ofCase[0], nil
}

func performTask(text string) error {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(t.perform())
}
