package harness

import (
	"crypto/rand"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// KilledGrace is a grace process that is killed and started again, with the same name.
type KilledGrace struct {
	*Grace    // the one that runs
	Name      string
	arguments []string
	before    []*Grace
}

// StartToKill runs grace with these arguments of `grace run`.
func StartToKill(t *testing.T, arguments ...string) *KilledGrace {
	t.Helper()
	name := "killed-" + strings.ToLower(rand.Text())
	d := &KilledGrace{Name: name, arguments: append([]string{"--name", name}, arguments...)}
	t.Cleanup(d.cleanUp) // runs after those of the processes
	d.Grace = Start(t, d.arguments...)
	return d
}

// cleanUp is for apps that nobody has adopted.
func (d *KilledGrace) cleanUp() {
	for _, g := range append(d.before, d.Grace) {
		for _, group := range g.Groups() {
			if group.Remains() {
				_ = syscall.Kill(-group.ID, syscall.SIGKILL) // it may have ended
			}
		}
	}
}

// Kill ends grace as the kernel does when memory is short.
func (d *KilledGrace) Kill() {
	d.T.Helper()
	d.Signal(syscall.SIGKILL)
	d.Wait()
}

// Again starts grace once more, and returns when it has adopted the app.
func (d *KilledGrace) Again(more ...string) Entry {
	d.T.Helper()
	d.StartAgain(more...)
	return d.AwaitMessage("app adopted")
}

// StartAgain starts grace once more.
func (d *KilledGrace) StartAgain(more ...string) {
	d.T.Helper()
	d.before = append(d.before, d.Grace)
	d.Grace = Start(d.T, append(append([]string{}, more...), d.arguments...)...)
}

// AgainBy starts grace by another command, and returns when it has adopted the app.
func (d *KilledGrace) AgainBy(command ...string) {
	d.T.Helper()
	d.before = append(d.before, d.Grace)
	d.Grace = StartCommand(d.T, exec.Command(command[0], command[1:]...))
	d.AwaitMessage("app adopted")
}

// End stops the last grace process, and sees that none leaves anything.
func (d *KilledGrace) End() {
	d.T.Helper()
	d.Stop()
	for _, g := range d.before {
		g.AwaitEndOfOutput()
		g.CheckNothingLeft()
	}
}

// Command runs a command of grace about this grace process.
func (d *KilledGrace) Command(command string, arguments ...string) string {
	d.T.Helper()
	out, err := exec.Command(GraceBinary(), append([]string{command, d.Name}, arguments...)...).CombinedOutput()
	if err != nil {
		d.T.Errorf("grace %s: %v\n%s", command, err, out)
	}
	return string(out)
}

// AwaitStatus waits until grace status says this: what a grace process has done last before it was killed the next one may do
// once more.
func (d *KilledGrace) AwaitStatus(text string) {
	d.T.Helper()
	Until(d.T, "grace status says "+text, func() bool { return strings.Contains(d.Command("status"), text) })
}

// AwaitOneGeneration waits until one generation serves and no other one is left, and returns its number.
func (d *KilledGrace) AwaitOneGeneration() (number int) {
	d.T.Helper()
	Until(d.T, "one generation serves, and no other is left", func() bool {
		c, _ := Client(d.T, d.Name)
		status, err := c.Status(d.T.Context())
		if err != nil || status.State != "serving" || len(status.Generations) != 1 {
			return false
		}
		number = status.Current
		return true
	})
	return number
}
