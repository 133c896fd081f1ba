package machine

import (
	"fmt"
	"os"
	"strings"
)

func (w *world) trace(ev Event, actions []Action) {
	if os.Getenv("TRACE") == "" {
		return
	}
	var b strings.Builder
	for _, g := range w.m.generations {
		fmt.Fprintf(&b, " [%d/%d %s", g.Number, g.Of, g.Stage)
		for _, i := range g.instances {
			fmt.Fprintf(&b, " %d:%s", i.ID, i.Phase)
			if i.Ended {
				fmt.Fprint(&b, "!")
			}
		}
		fmt.Fprint(&b, "]")
	}
	fmt.Printf("%T%+v\n   => %s mode %d\n", ev, ev, b.String(), w.m.mode)
	for _, a := range actions {
		fmt.Printf("      %T%+v\n", a, a)
	}
}
