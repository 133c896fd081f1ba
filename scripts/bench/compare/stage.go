package compare

import (
	"cmp"
	"fmt"
	"time"
)

// stage is a running server with its clients, to which one scenario is done.
type stage struct {
	*place
	tool    running
	clients *audience
	number  int // of the last version
	fault   fault
	bare    func() ([]string, *place, error)
	result  *result
}

// startBackend starts the server behind those that are proxies.
func startBackend(built programs) (*place, error) {
	p, err := newPlace(built, "")
	if err != nil {
		return nil, err
	}
	if _, err := p.run(p.goApp(server{end: byDrain})); err != nil {
		return p, err
	}
	_, err = awaitVersion(p.address, 1, firstTime)
	return p, err
}

// firstTime is what a tool gets for its own start.
const firstTime = 20 * time.Second

func bareCommand(p *place, of tool, s server) ([]string, *place, error) {
	beside, err := newPlace(p.programs, p.backend)
	if err != nil {
		return nil, nil, err
	}
	return of.bare(beside, s), beside, nil
}

// calm measures bare starts, and then what requests take while nothing happens.
func (s *stage) calm() error {
	time.Sleep(calmTime / 2) // all clients have come
	for range bareMany {
		if err := s.bareStart(); err != nil {
			return err
		}
	}
	s.clients.lap()
	time.Sleep(calmTime)
	s.result.Calm = latenciesOf(s.clients.lap())
	return nil
}

func (s *stage) bareStart() error {
	command, beside, err := s.bare()
	if err != nil {
		return err
	}
	defer beside.remove()
	begun := time.Now()
	c, err := beside.run(command)
	if err != nil {
		return err
	}
	_, err = awaitVersion(beside.address, 1, firstTime)
	s.result.Bare = append(s.result.Bare, milliseconds(time.Since(begun)))
	c.end(0, 0)
	if err != nil {
		return fmt.Errorf("the bare start does not serve: %w\n%s", err, beside.tail())
	}
	return nil
}

func (s *stage) deploy(f fault) error {
	s.number++
	return s.tool.deploy(version{s.number, f})
}

// ask begins an upgrade. The tool may say that it failed; what counts is who serves.
func (s *stage) ask() <-chan error {
	asked := make(chan error, 1)
	go func() { asked <- s.tool.upgrade() }()
	return asked
}

// askEach asks as often as it is told to.
func (s *stage) askEach(due <-chan struct{}) error {
	var last error
	for range due {
		last = cmp.Or(s.tool.upgrade(), last)
	}
	return last
}

// told waits for the end of the request.
func (s *stage) told(asked <-chan error) {
	select {
	case err := <-asked:
		if err != nil {
			s.result.Said = append(s.result.Said, err.Error())
		}
	case <-time.After(firstTime):
		s.result.Said = append(s.result.Said, fmt.Sprintf("the request was not over after %s", firstTime))
	}
}

// replace is one upgrade, from the request to the first answer of the new version.
func (s *stage) replace(f fault) error {
	if err := s.deploy(f); err != nil {
		return err
	}
	s.result.Asked++
	begun := time.Now()
	asked := s.ask()
	_, err := awaitVersion(s.address, s.number, serveTime)
	s.result.NewServes = err == nil
	if err == nil {
		s.result.Served++
		s.result.Times = append(s.result.Times, milliseconds(time.Since(begun)))
	}
	s.told(asked)
	return nil
}

// awaitEnds waits until the processes have ended that were replaced, and counts those that have not.
func (s *stage) awaitEnds() {
	for deadline := time.Now().Add(endTime); ; time.Sleep(100 * time.Millisecond) {
		s.result.Left = s.replacedAlive()
		if s.result.Left == 0 || time.Now().After(deadline) {
			return
		}
	}
}

func (s *stage) replacedAlive() int {
	a, _ := ask(s.address) // none serves where the tool has failed
	n := 0
	for pid := range s.clients.processes() {
		if pid != 0 && pid != a.pid && alive(pid) {
			n++
		}
	}
	return n
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
