package cmd

import (
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/terminal"
	"golang.org/x/sys/unix"
)

// On a terminal one picture is drawn over another, and what was there before comes back.
func TestWatchOnATerminal(t *testing.T) {
	inPlace(t)
	serve(t, "web", &fake{status: someStatus()})
	master, terminal := terminal.Open(t)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 60, Row: 7}); err != nil {
		t.Fatal(err)
	}
	c := grace("status", "--watch")
	c.Stdout = terminal
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	shown := make(chan string, 1)
	drawn := make(chan struct{}, 10)
	go func() {
		var all strings.Builder
		for part, seen := make([]byte, 4096), 0; ; {
			n, err := master.Read(part) // which may end in the middle of a picture
			all.Write(part[:n])
			for ; seen < strings.Count(all.String(), eraseBelow); seen++ {
				drawn <- struct{}{}
			}
			if err != nil { // EIO: nobody has the terminal open any more
				shown <- all.String()
				return
			}
		}
	}()
	<-drawn
	<-drawn
	if _, err := master.Write([]byte{3}); err != nil { // ^C
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	picture := strings.Join([]string{
		"web: serving, generation 7", "  pid 4242, up 1d2h, 2 crashes, 1 restart, grace v1.2.0", "",
		"GENERATION  PHASE     FOR    CONNECTIONS  WAITS FOR", `6           draining  1h30m               the app to end`, "  DIRECTORY  /srv", `  COMMAND    ./app "two words"`,
	}, eraseLine+"\r\n")
	text := strings.ReplaceAll(<-shown, "\r\r\n", "\r\n") // the terminal's own \r
	if want := enterScreen + home + picture + eraseLine + eraseBelow + home + picture; !strings.HasPrefix(text, want) {
		t.Errorf("it begins with %q\nand not with %q", text, want)
	}
	var last strings.Builder
	if err := printStatus(&last, someStatus(), 60); err != nil {
		t.Fatal(err)
	}
	if want := leaveScreen + strings.ReplaceAll(last.String(), "\n", "\r\n"); !strings.HasSuffix(text, want) {
		t.Errorf("it ends with %q", text)
	}
}
