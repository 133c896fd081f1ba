//go:build bench && linux

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

// bindMany listens at addresses that nobody uses, and writes a line like one of grace's log.
func bindMany(n int) error {
	begun := time.Now()
	for i := range n {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.4.%d.%d:4321", i>>8, i&255))
		if err != nil {
			return err
		}
		bound = append(bound, l)
	}
	took := float64(time.Since(begun).Microseconds()) / 1000
	fmt.Fprintf(os.Stderr, `{"message":"bound","generation":%s,"took_ms":%g}`+"\n", cmp.Or(os.Getenv("GRACE_GENERATION"), "0"), took)
	return nil
}
