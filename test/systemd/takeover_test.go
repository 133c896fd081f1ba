package systemd

import (
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// A server under a unit of its own moves to the unit of grace as docs/takeover.md has it: refused as long as systemd would start it
// again, and then no request is lost.
func TestServerOfAnotherUnitIsTakenOver(t *testing.T) {
	addr := freeport.Address(t)
	b := bootUnits(t, "", "GRACE_TAKEOVER=safe\nGRACE_EMPTY=0s\n", "#!/bin/sh\nexec /srv/shop/server -addr "+addr+"\n",
		map[string]string{shop: "[Service]\nDynamicUser=no\nUser=root\nCapabilityBoundingSet=~\nNoNewPrivileges=no\n"})
	b.do("systemd-run", "--unit=old", "--property=Restart=always", "/srv/shop/server", "-addr", addr)
	harness.AwaitListener(t, "tcp", addr)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		const why = "systemd unit old.service will start it again: run systemctl disable old.service && mkdir -p "
		output, err := b.command("/usr/local/bin/grace", "takeover", "--dry-run", addr).CombinedOutput()
		if err == nil || !strings.Contains(string(output), why) {
			t.Errorf("grace says of it, %v:\n%s", err, output)
		}
		b.fails("systemctl", "start", shop)
		_, instructions, _ := strings.Cut(string(output), "mkdir")
		instructions, _, _ = strings.Cut(instructions, " first")
		b.do("sh", "-c", "mkdir"+instructions)
		b.do("systemctl", "start", shop)
		b.follow(shop).AwaitGeneration("generation ended", 0)
	})
	if state := b.property("old.service", "ActiveState"); state != "inactive" {
		t.Errorf("the unit of the server is %s", state)
	}
	b.do("systemctl", "stop", shop)
}
