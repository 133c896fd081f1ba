package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// leaveWaiting leaves sockets in TIME_WAIT, where the kernel keeps them for a minute: connections that their client has closed first.
func leaveWaiting(n int) {
	const addresses = 4 // each has the ephemeral ports once more
	for i := range addresses {
		check(leaveAt(fmt.Sprintf("127.6.0.%d:0", 1+i), n/addresses))
	}
}

func leaveAt(address string, n int) error {
	ln, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr)
	to := &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	for range n {
		if err := connectAndClose(to, ln); err != nil {
			return err
		}
	}
	return nil
}

func connectAndClose(to unix.Sockaddr, ln net.Listener) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Connect(fd, to)
	unix.Close(fd)
	if err != nil {
		return err
	}
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	return conn.Close()
}

// socketsWaiting is how many there are in this network namespace.
func socketsWaiting() int { return waitingOf(string(must(os.ReadFile("/proc/net/sockstat")))) }

// waitingOf reads a line like "TCP: inuse 7 orphan 0 tw 14 alloc 9 mem 2".
func waitingOf(sockstat string) int {
	for line := range strings.Lines(sockstat) {
		words := strings.Fields(line)
		for i, word := range words {
			if words[0] == "TCP:" && word == "tw" {
				return must(strconv.Atoi(words[i+1]))
			}
		}
	}
	panic("no sockets in TIME_WAIT in /proc/net/sockstat")
}
