package main

import (
	"errors"
	"log/slog"
	"sync"
)

var errClosed = errors.New("the store is closed")

// store stands for a database: operations after its end fail.
type store struct {
	mu     sync.Mutex
	visits int
	closed bool
}

func (s *store) add() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errClosed
	}
	s.visits++
	return s.visits, nil
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.visits
}

func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	slog.Info("the store is closed", "visits", s.visits)
	return nil
}
