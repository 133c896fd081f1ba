package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/gracelog"
)

// show drives one demo: one goroutine that waits for what happens, writes it into the record, and has it drawn.
type show struct {
	*record
	grace    *gracelog.Process
	view     view
	load     *load.Load
	began    time.Time
	answers  chan answer
	neighbor *neighbor // nil where there is none
}

// answer is the first response of a generation.
type answer struct {
	upgrade *upgrade
	at      time.Time
}

const (
	startPatience   = 30 * time.Second
	upgradePatience = 30 * time.Second
	frameInterval   = 250 * time.Millisecond
)

// play returns when all is shown, or with the reason why not. The load has ended then; grace still runs.
func (s *show) play(ctx context.Context) error {
	addr, err := s.awaitStart(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.startBeside(ctx)
	s.load, err = load.Start(ctx, load.Config{
		Addr:     addr,
		Clients:  divide(s.clients),
		Paths:    map[load.Kind]string{load.Slow: "/slow?for=" + s.slow.String()},
		ThinkMin: thinkMin,
		ThinkMax: thinkMax,
	})
	if err != nil {
		return err
	}
	s.began = time.Now()
	s.answers = make(chan answer, 1)
	err = s.watch(ctx)
	if err != nil {
		cancel()
	}
	s.tally = s.load.Stop()
	return errors.Join(err, s.stopBeside())
}

func (s *show) startBeside(ctx context.Context) {
	if !s.options.beside {
		return
	}
	n, err := startNeighbor(ctx)
	if err != nil {
		s.record.beside.why = err.Error()
		return
	}
	s.neighbor = n
}

func (s *show) stopBeside() (err error) {
	if s.neighbor != nil {
		s.record.beside.tally, err = s.neighbor.stop()
	}
	return err
}

// awaitStart returns the address once the first generation serves.
func (s *show) awaitStart(ctx context.Context) (addr string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("the app was not ready in time"))
	defer cancel()
	for {
		select {
		case e := <-s.grace.Log:
			s.heed(e)
			switch e.Message {
			case "listening":
				addr = e.Address
			case "generation ready":
				s.generation = e.Generation
				return addr, nil
			}
		case <-s.grace.Exited:
			s.lastWords()
			return "", fmt.Errorf("grace ended before the app was ready (%v)", s.grace.Cmd.ProcessState)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// heed keeps what a line of the log complains about. Neither grace nor its app write a line of another form when all is well.
func (s *show) heed(e gracelog.Entry) {
	if e.Level == "error" || e.Message == "" && e.Text != "" {
		s.complaints = append(s.complaints, e.String())
	}
}

// lastWords reads the rest of the log of a grace process that has ended; an app that outlives it holds the log open.
func (s *show) lastWords() {
	patience := time.After(time.Second)
	for {
		select {
		case e, more := <-s.grace.Log:
			if !more {
				return
			}
			s.heed(e)
		case <-patience:
			return
		}
	}
}

// watch is the loop: whatever happens comes here.
func (s *show) watch(ctx context.Context) error {
	columns, frames := time.NewTicker(s.column()), time.NewTicker(frameInterval)
	defer columns.Stop()
	defer frames.Stop()
	for !s.complete() {
		select {
		case <-columns.C:
			s.addMoment(s.load.Lap())
			s.neighbor.ask(ctx)
		case open := <-s.neighbor.answers():
			s.neighbor.asking = false
			s.addOpen(open)
		case e := <-s.neighbor.log():
			s.heed(e)
		case <-frames.C:
			s.draw()
		case e := <-s.grace.Log:
			s.note(ctx, e)
		case <-s.grace.Exited:
			s.lastWords()
			return fmt.Errorf("grace ended during the demo (%v)", s.grace.Cmd.ProcessState)
		case a := <-s.answers:
			s.answered(a)
		case <-ctx.Done():
			return ctx.Err()
		}
		s.elapsed = time.Since(s.began)
		if err := s.advance(); err != nil {
			return err
		}
	}
	s.addMoment(s.load.Lap())
	s.draw()
	return nil
}

func (s *show) draw() {
	s.snapshot()
	s.view.draw(s.record)
}

func (s *show) snapshot() {
	s.tally = s.load.Snapshot()
	if s.neighbor != nil {
		s.record.beside.tally = s.neighbor.load.Snapshot()
	}
}

// addOpen fills the row up to now.
func (s *show) addOpen(open int) {
	b := &s.record.beside
	for now := min(s.columns, len(s.moments)); len(b.open) < now; {
		b.open = append(b.open, open)
	}
}

// addMoment fills the picture up to now: a busy machine skips ticks, and one lap then stands for several columns.
func (s *show) addMoment(lap *hdrhistogram.Histogram) {
	m := moment{math.NaN(), math.NaN()}
	if lap.TotalCount() > 0 {
		m = moment{milliseconds(lap.ValueAtQuantile(50)), milliseconds(lap.Max())}
	}
	now := min(s.columns, int(time.Since(s.began)/s.column()))
	for len(s.moments) < now {
		s.moments = append(s.moments, m)
	}
}

// advance begins the next upgrade when it is time, and gives one up that takes too long.
func (s *show) advance() error {
	for _, u := range s.record.upgrades {
		if !u.over() && s.elapsed-u.began > upgradePatience {
			u.failed = "it took too long"
			s.upgraded(u)
		}
	}
	if !s.due() {
		return nil
	}
	s.load.Mark(load.During)
	s.neighbor.mark(load.During)
	s.record.upgrades = append(s.record.upgrades, &upgrade{began: time.Since(s.began), replaced: s.generation})
	if err := s.grace.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("cannot signal grace: %w", err)
	}
	if err := s.neighbor.upgrade(); err != nil {
		return fmt.Errorf("cannot signal the grace process of the plain app: %w", err)
	}
	return nil
}

// note takes in one line of grace's log.
func (s *show) note(ctx context.Context, e gracelog.Entry) {
	s.heed(e)
	switch {
	case e.Message == "generation ready":
		s.ready(ctx, e.Generation)
	case e.Message == "generation ended":
		s.gone(e.Generation)
	case strings.HasPrefix(e.Message, "upgrade failed"), strings.HasPrefix(e.Message, "upgrade refused"):
		if u := s.pending(); u != nil {
			u.failed = e.String()
			s.upgraded(u)
		}
	}
}

// pending is the upgrade whose new generation is not ready yet.
func (s *show) pending() *upgrade {
	n := len(s.record.upgrades)
	if n == 0 || s.record.upgrades[n-1].by != 0 || s.record.upgrades[n-1].failed != "" {
		return nil
	}
	return s.record.upgrades[n-1]
}

func (s *show) ready(ctx context.Context, generation int) {
	s.generation = generation
	u := s.pending()
	if u == nil {
		return
	}
	u.by = generation
	go func() {
		is := func(source load.Source) bool { return source.Generation == generation }
		at, err := s.load.Await(ctx, is)
		if err != nil {
			return
		}
		select {
		case s.answers <- answer{u, at}:
		case <-ctx.Done():
		}
	}()
}

func (s *show) answered(a answer) {
	a.upgrade.answered = a.at.Sub(s.began) - a.upgrade.began
	s.upgraded(a.upgrade)
}

func (s *show) gone(generation int) {
	for _, u := range s.record.upgrades {
		if u.replaced == generation && u.failed == "" {
			u.gone = time.Since(s.began) - u.began
			s.upgraded(u)
		}
	}
}

// upgraded is called whenever an upgrade has got further.
func (s *show) upgraded(u *upgrade) {
	if !s.upgrading() {
		s.load.Mark(load.Outside)
		s.neighbor.mark(load.Outside)
	}
	if u.over() {
		s.snapshot()
		s.view.upgraded(s.record, u)
	}
}

func milliseconds(microseconds int64) float64 { return float64(microseconds) / 1000 }
