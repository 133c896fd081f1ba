package kubernetes

import (
	"encoding/json"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// pod is what the API server says of one, of which this test needs little.
type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
	}
	Spec   struct{ NodeName string }
	Status struct {
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct {
			RestartCount int
			State        struct {
				Terminated *struct{ ExitCode int }
			}
		}
	}
}

// ready says whether a disruption budget counts the pod.
func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == ""
		}
	}
	return false
}

// watch follows the pods of the app.
type watch struct {
	mu       sync.Mutex
	pods     map[string]pod
	fewest   int             // ready ones, since reset
	exits    map[string]int  // the exit status of each pod that has ended since reset
	restarts map[string]bool // the pods whose container was started again since reset
	err      error
}

func (c *cluster) watch(t *testing.T) *watch {
	t.Helper()
	w := &watch{pods: map[string]pod{}, exits: map[string]int{}, restarts: map[string]bool{}}
	command := c.command([]string{"get", "pods", "--selector", "app.kubernetes.io/name=app", "--watch", "--output-watch-events", "--output", "json"})
	p := exec.Command(command[0], command[1:]...)
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.follow(json.NewDecoder(out))
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-done
		p.Wait()
	})
	return w
}

func (w *watch) follow(events *json.Decoder) {
	for {
		var event struct {
			Type   string
			Object pod
		}
		err := events.Decode(&event)
		w.mu.Lock()
		if err != nil {
			w.err = err
			w.mu.Unlock()
			return
		}
		w.note(event.Type, event.Object)
		w.mu.Unlock()
	}
}

func (w *watch) note(kind string, p pod) {
	name := p.Metadata.Name
	for _, c := range p.Status.ContainerStatuses {
		if c.RestartCount > 0 {
			w.restarts[name] = true
		}
		if c.State.Terminated != nil {
			w.exits[name] = c.State.Terminated.ExitCode
		}
	}
	w.pods[name] = p
	if kind == "DELETED" {
		delete(w.pods, name)
	}
	w.fewest = min(w.fewest, w.readyPods())
}

func (w *watch) readyPods() (sum int) {
	for _, p := range w.pods {
		if p.ready() {
			sum++
		}
	}
	return sum
}

// awaitOnly waits until there are so many pods, all of them ready, and no other one.
func (w *watch) awaitOnly(t *testing.T, count int) {
	t.Helper()
	until(t, "the pods are ready and the old ones have ended", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err != nil {
			t.Fatalf("cannot watch the pods any more: %v", w.err)
		}
		return len(w.pods) == count && w.readyPods() == count
	})
}

// reset begins a new count of the fewest ready pods, and forgets which containers have ended.
func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fewest = w.readyPods()
	clear(w.exits)
	clear(w.restarts)
}

func (w *watch) fewestReady() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fewest
}

// nodeOfMost gives the node with the most pods, and how many it has.
func (w *watch) nodeOfMost() (node string, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for _, p := range w.pods {
		counts[p.Spec.NodeName]++
		if counts[p.Spec.NodeName] > most {
			node, most = p.Spec.NodeName, counts[p.Spec.NodeName]
		}
	}
	return node, most
}

func (w *watch) names() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.pods {
		names = append(names, name)
	}
	return names
}

// check wants enough pods to have been ready all the time, and those that have ended to have done so by themselves.
func (w *watch) check(t *testing.T, least, ended int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("at least %d pods were ready all the time; %d pods have ended, with the exit status %v", w.fewest, len(w.exits), slices.Collect(maps.Values(w.exits)))
	if w.fewest < least {
		t.Errorf("%d pods were ready, and there have to be %d", w.fewest, least)
	}
	if len(w.exits) != ended {
		t.Errorf("%d pods have ended, not %d", len(w.exits), ended)
	}
	for name, status := range w.exits {
		if status != 0 {
			t.Errorf("%s ended with status %d", name, status)
		}
	}
	if len(w.restarts) > 0 {
		t.Errorf("these pods had to start their container again: %v", w.restarts)
	}
}
