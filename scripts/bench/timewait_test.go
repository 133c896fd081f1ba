package main

import "testing"

func TestSocketsInTimeWait(t *testing.T) {
	const sockstat = `sockets: used 19
TCP: inuse 5 orphan 0 tw 1433 alloc 5 mem 44
UDP: inuse 0 mem 0
`
	if got := waitingOf(sockstat); got != 1433 {
		t.Errorf("%d", got)
	}
}
