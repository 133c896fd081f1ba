package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func steering() Finding {
	f := Finding{Mechanism: "steering", State: OK, serves: capturing, Means: "the kernel sends new connections to the generation that grace selects"}
	if err := steer(); err != nil {
		f.State, f.Means = Missing, fmt.Sprintf("two generations cannot share an address without loss: %v", err)
		f.Do = "let grace hold the sockets (--listen); steering needs SO_ATTACH_REUSEPORT_CBPF, which Linux has since 4.5 and which needs no privilege"
	}
	return f
}

// turns is as many as make it unlikely that chance steers the same way.
const turns = 8

// steer has two sockets share an address and selects the one and the other by turns.
func steer() error {
	first, err := listenLocally()
	if err != nil {
		return err
	}
	defer unix.Close(first)
	address, err := boundTo(first)
	if err != nil {
		return err
	}
	second, err := listenBeside(first)
	if err != nil {
		return err
	}
	defer unix.Close(second)
	sockets := []int{first, second}
	for turn := range turns {
		selected := turn % len(sockets)
		if err := selectSocket(first, selected); err != nil {
			return fmt.Errorf("cannot attach a program: %w", err)
		}
		if err := arrive(address, sockets, selected); err != nil {
			return err
		}
	}
	return nil
}

func listenBeside(first int) (int, error) {
	name, err := unix.Getsockname(first)
	if err != nil {
		return -1, err
	}
	second, err := bindLocally(name.(*unix.SockaddrInet4).Port)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(second, unix.SOMAXCONN); err != nil {
		return -1, errors.Join(err, unix.Close(second))
	}
	return second, nil
}

func selectSocket(fd, number int) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(number)}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &program[0]})
}

// arrive wants a new connection in the queue of the selected socket.
func arrive(address string, sockets []int, selected int) error {
	conn, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return err
	}
	defer conn.Close()
	fds := make([]unix.PollFd, len(sockets))
	for i, fd := range sockets {
		fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	if err := poll(fds); err != nil {
		return err
	}
	if fds[selected].Revents&unix.POLLIN == 0 {
		return errors.New("a connection went to the wrong one of two sockets")
	}
	accepted, _, err := unix.Accept4(sockets[selected], unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(accepted)
}

func poll(fds []unix.PollFd) error {
	for {
		n, err := unix.Poll(fds, int(limit.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			return errors.New("a connection went to neither of two sockets")
		}
		return err
	}
}

// migration matters where a queue ends before it is empty.
func migration() Finding {
	f := Finding{Mechanism: "tcp_migrate_req", State: OK, Means: "if an app shuts down a socket by itself, connections in its queue go to another generation"}
	value, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	if err == nil && strings.TrimSpace(string(value)) != "0" {
		return f
	}
	f.State, f.Means = Limited, "if an app shuts down a socket by itself, connections in its queue are reset; in an upgrade grace waits until the queue is empty"
	f.Do = "sysctl net.ipv4.tcp_migrate_req=1 (docker run --sysctl ...)"
	if err != nil {
		f.Do = "use Linux 5.14 or newer, which has this setting"
	}
	return f
}
