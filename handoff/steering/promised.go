package steering

import "slices"

// Promised are the sockets that the instance has by Take and has not called listen on. They listen already, and some programs, such
// as haproxy, ask for that first (SO_ACCEPTCONN in socket(7)) and leave out the call. One may have been shut down by now, which Accept sees.
func (s *Steering) Promised(m InstanceKey) (inodes []uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, p := range s.places() {
		for _, member := range p.list().Members {
			if slices.Contains(member.shares(), share{m, promised}) {
				inodes = append(inodes, member.Inode)
			}
		}
	}
	return inodes
}

// Accept says that the instance waits for connections on a socket that was promised to it: its listen, had it called that, would have
// said so. It does nothing where the socket has been given up meanwhile.
func (s *Steering) Accept(m InstanceKey, inode uint64) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	if member := s.findPath(inode); member != nil && member.keptBy(m) {
		member.hold(m)
		return member.group.sweep()
	}
	g, member := s.find(inode)
	if member == nil || !member.keptBy(m) {
		return nil
	}
	s.holds(g, member, m)
	return s.refresh()
}
