package apptest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

// Flipper is an app on the real tableflip library, which does one step of its life an order; other is what else it
// can be ordered to do.
func Flipper(other func(words []string) string) {
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	Obey(func(order string) string {
		words := strings.Fields(order)
		switch words[0] {
		case "parent?":
			return fmt.Sprint(upgrader.HasParent())
		case "listen":
			return InodeOrError(upgrader.Listen(words[1], words[2]))
		case "packet":
			return InodeOrError(upgrader.ListenPacket(words[1], words[2]))
		case "ready":
			return fmt.Sprint(upgrader.Ready())
		case "upgrade":
			return fmt.Sprint(upgradeToHeir(upgrader, strings.TrimPrefix(order, "upgrade ")))
		case "alone":
			ctx, cancel := context.WithTimeout(context.Background(), Patience)
			defer cancel()
			return fmt.Sprint(upgrader.WaitForParent(ctx))
		}
		return other(words)
	})
}

// upgradeToHeir replaces the flipper by an app that knows handoff alone.
func upgradeToHeir(upgrader *tableflip.Upgrader, asks string) error {
	os.Args[0] = "/proc/self/exe"
	os.Setenv(RoleVariable, "heir")
	os.Setenv("HEIR", asks)
	for {
		// The library hears of its own Ready a little later.
		err := upgrader.Upgrade()
		if err == nil || err.Error() != "process is not ready yet" {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// InodeOrError takes what listening functions return.
func InodeOrError(socket any, err error) string {
	if err != nil {
		return err.Error()
	}
	raw, err := socket.(syscall.Conn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	var stat unix.Stat_t
	if err := raw.Control(func(fd uintptr) { unix.Fstat(int(fd), &stat) }); err != nil {
		return err.Error()
	}
	return fmt.Sprint(stat.Ino)
}
