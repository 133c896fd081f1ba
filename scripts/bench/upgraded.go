package main

import "time"

// upgraded is the app under grace.
type upgraded struct{ *supervised }

func (s *upgraded) serves() string { return s.address }

func (s *upgraded) replace() time.Duration {
	old := s.pids[0]
	begun := s.hangUp()
	_, answered := newProbe(s.address).awaitOther(old)
	s.awaitReady()
	s.awaitEnd()
	return answered.Sub(begun)
}
