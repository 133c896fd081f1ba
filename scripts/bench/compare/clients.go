package compare

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/load"
)

// audience is who is counted: clients that never retry. Each looks before a request whether the server has closed the connection,
// as connection pools do, so that what fails was on its way.
type audience struct{ busy, idle *load.Load }

// idleClients is the name of the pool's clients in the tables; the others have that of their kind.
const idleClients load.Kind = "idle pool"

// clientKinds is the order of the tables.
var clientKinds = []load.Kind{load.NewConnection, load.KeepAliveGet, load.KeepAlivePost, idleClients, load.Slow, load.Stream}

var (
	busyClients = map[load.Kind]int{load.NewConnection: 4, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 3, load.Stream: 3}
	poolClients = map[load.Kind]int{load.KeepAliveGet: 20, load.KeepAlivePost: 20}
)

// away is how far the pool's clients are from the server. What a server loses by closing idle connections is what is on its way to
// it, and on one machine that is hardly anything.
const away = 10 * time.Millisecond

// answerTime bounds an answer. A server with a start of a second is not slow by that.
const answerTime = 5 * time.Second

func invite(address string) (*audience, error) {
	busy, err := load.Start(context.Background(), load.Config{
		Addr: address, Clients: busyClients, ThinkMin: 10 * time.Millisecond, ThinkMax: 30 * time.Millisecond, Looks: true, Timeout: answerTime,
	})
	if err != nil {
		return nil, err
	}
	idle, err := load.Start(context.Background(), load.Config{
		Addr: address, Clients: poolClients, ThinkMin: 100 * time.Millisecond, ThinkMax: 500 * time.Millisecond, Looks: true, Away: away,
		Timeout: answerTime, Ramp: time.Second,
	})
	if err != nil {
		busy.Stop()
		return nil, err
	}
	return &audience{busy, idle}, nil
}

// lap is of the busy clients' latencies since the last one.
func (a *audience) lap() *hdrhistogram.Histogram { return a.busy.Lap() }

// counted is what became of requests.
type counted struct {
	Requests uint64
	By       map[load.Kind]uint64    // failures, by the kind of client
	How      map[load.Failure]uint64 // and by what went wrong
	Examples []string
}

func newCounted() counted {
	return counted{By: map[load.Kind]uint64{}, How: map[load.Failure]uint64{}}
}

func (c *counted) add(other counted) {
	c.Requests += other.Requests
	for kind, n := range other.By {
		c.By[kind] += n
	}
	for failure, n := range other.How {
		c.How[failure] += n
	}
}

// how is in words.
func (c counted) how() string {
	var kinds []string
	for _, f := range load.Failures() {
		if n := c.How[f]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, f))
		}
	}
	return strings.Join(kinds, ", ")
}

// lost is without the event streams: a server that does not end them by itself cuts them under any tool.
func (c counted) lost() uint64 { return c.failed() - c.By[load.Stream] }

func (c counted) failed() (sum uint64) {
	for _, n := range c.By {
		sum += n
	}
	return sum
}

func (a *audience) leave() counted {
	idle := make(chan load.Tally)
	go func() { idle <- a.idle.Stop() }()
	return count(a.busy.Stop(), <-idle)
}

func count(busy, idle load.Tally) counted {
	c := counted{Requests: busy.Requests() + idle.Requests(), By: map[load.Kind]uint64{idleClients: idle.Failures()}, How: busy.ByFailure()}
	for kind := range busy.Kinds {
		c.By[kind] = busy.Failures(kind)
	}
	for failure, n := range idle.ByFailure() {
		c.How[failure] += n
	}
	for _, failed := range append(busy.First, idle.First...) {
		c.Examples = append(c.Examples, failed.String())
	}
	return c
}

// generations are the versions that the busy clients have seen.
func (a *audience) generations() map[int]bool {
	seen := map[int]bool{}
	for source := range a.busy.Snapshot().Answers {
		seen[source.Generation] = true
	}
	return seen
}

// processes are those that have answered the busy clients.
func (a *audience) processes() map[int]bool {
	seen := map[int]bool{}
	for source := range a.busy.Snapshot().Answers {
		seen[source.Pid] = true
	}
	return seen
}
