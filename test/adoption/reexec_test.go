package adoption

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// During a reexec there may be two grace processes, or one that is becoming another: whenever all of them are killed, the next one adopts.
func TestKilledDuringAReexec(t *testing.T) {
	for _, way := range harness.ReexecWays {
		for _, kind := range []string{"held", "captured"} {
			t.Run(way+", "+kind, func(t *testing.T) {
				addr, program := freeport.Address(t), filepath.Join(t.TempDir(), "grace")
				if err := os.Link(harness.GraceBinary(), program); err != nil {
					t.Fatal(err)
				}
				d := harness.StartToKill(t, kinds[kind](addr)...)
				d.AwaitReady(1)
				command := []string{"/usr/bin/env", "GORACE=atexit_sleep_ms=0"}
				if way == "another process" {
					command = append(command, "NOTIFY_SOCKET="+heedless(t))
				}
				command = append(append(command, program, "run", "--log-format", "json", "--name", d.Name), kinds[kind](addr)...)
				t.Cleanup(func() { killAll(t, program) })
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
					d.Kill()
					d.AgainBy(command...)
					for range *kills {
						d.Signal(syscall.SIGUSR2)
						time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
						d.Kill() // while it executes its successor it has no program for a moment
						killAll(t, program)
						d.AgainBy(command...)
					}
					d.AwaitOneGeneration()
					d.Command("upgrade")
					if serves := d.AwaitOneGeneration(); serves != 2 {
						t.Errorf("generation %d serves", serves)
					}
				})
				d.End()
			})
		}
	}
}

// heedless is a service manager that reads what it is told.
func heedless(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for text := make([]byte, 4096); ; {
			if _, err := conn.Read(text); err != nil {
				return
			}
		}
	}()
	return path
}

// killAll kills every process that runs the program, and those that begin meanwhile.
func killAll(t *testing.T, program string) {
	t.Helper()
	harness.Until(t, fmt.Sprintf("nobody runs %s", program), func() bool {
		paths, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			t.Fatal(err)
		}
		none := true
		for _, path := range paths {
			if link, err := os.Readlink(path); err != nil || link != program {
				continue
			}
			pid, err := strconv.Atoi(strings.Split(path, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			none = syscall.Kill(pid, syscall.SIGKILL) != nil && none
		}
		return none
	})
}
