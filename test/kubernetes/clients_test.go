package kubernetes

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// result is what the clients of one node have counted.
type result struct {
	Requests, Events, Failed uint64
	Generations              map[int]uint64 // answers
	Text                     string
}

// sendLoad is the whole process that the clients of a node are in.
func sendLoad(address string, streams int) error {
	l, err := load.Start(context.Background(), load.Config{
		Addr: address,
		Clients: map[load.Kind]int{
			load.NewConnection: 4, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 2, load.Stream: streams,
		},
		Paths:    map[load.Kind]string{load.Slow: "/slow?for=3s"},
		ThinkMin: 10 * time.Millisecond, ThinkMax: 40 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	tally := l.Stop()
	r := result{tally.Requests(), tally.Events(), tally.Failures(), map[int]uint64{}, tally.String()}
	for source, answers := range tally.Answers {
		r.Generations[source.Generation] += answers.Count
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// clients run on each node and reach the Service by its own address.
type clients struct {
	processes []*exec.Cmd
	ends      []io.Closer
	outs      []io.Reader
}

func (c *cluster) startClients(t *testing.T, more ...string) *clients {
	t.Helper()
	address := c.kubectl(t, "get", "service", "app", "--output", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
	all := &clients{}
	for _, n := range c.nodes {
		command := n.in(append([]string{program("kubernetes.test"), "--service", address}, more...)...)
		p := exec.Command(command[0], command[1:]...)
		p.Stderr = os.Stderr
		in, err := p.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		all.processes, all.ends, all.outs = append(all.processes, p), append(all.ends, in), append(all.outs, out)
	}
	return all
}

// stop lets the clients finish what they do, and gives the sum of what they have counted.
func (c *clients) stop(t *testing.T) result {
	t.Helper()
	sum := result{Generations: map[int]uint64{}}
	for _, in := range c.ends {
		in.Close()
	}
	for i, p := range c.processes {
		var r result
		if err := json.NewDecoder(c.outs[i]).Decode(&r); err != nil {
			t.Fatalf("clients did not report: %v", err)
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		sum.Requests, sum.Events, sum.Failed = sum.Requests+r.Requests, sum.Events+r.Events, sum.Failed+r.Failed
		sum.Text += "\n" + r.Text
		for generation, answers := range r.Generations {
			sum.Generations[generation] += answers
		}
	}
	return sum
}

// underLoad wants not one request to fail during do. More are flags for the clients.
func (c *cluster) underLoad(t *testing.T, do func(), more ...string) result {
	t.Helper()
	r := c.measure(t, do, more...)
	if r.Failed > 0 || r.Requests == 0 {
		t.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	return r
}

func (c *cluster) measure(t *testing.T, do func(), more ...string) result {
	t.Helper()
	all := c.startClients(t, more...)
	do()
	r := all.stop(t)
	t.Logf("%d requests and %d events, %d failed%s", r.Requests, r.Events, r.Failed, r.Text)
	return r
}
