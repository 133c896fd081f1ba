package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"time"
)

// bound keeps the listeners open.
var bound []net.Listener

// firstPort is below those that clients get (net.ipv4.ip_local_port_range).
const firstPort = 20000

// holdMany stays until it is killed.
func holdMany(n int) error {
	if err := bindMany(n); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

// bindMany listens on ports of an address that nobody uses, and writes a line like one of grace's log.
func bindMany(n int) error {
	begun := time.Now()
	for i := range n {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.4.0.1:%d", firstPort+i))
		if err != nil {
			return err
		}
		bound = append(bound, l)
	}
	took := float64(time.Since(begun).Microseconds()) / 1000
	fmt.Fprintf(os.Stderr, `{"message":"bound","generation":%s,"took_ms":%g}`+"\n", cmp.Or(os.Getenv("GRACE_GENERATION"), "0"), took)
	return nil
}
