package host

import (
	"fmt"
	"path/filepath"
	"slices"
)

// savers are servers that load their data when they start, write them to a file when they end, and allow a second process to do the same.
// Measured: a redis that is replaced loses what it was told after its last save. Those that lock their data, as PostgreSQL
// does, need no hint: the new process ends, and the upgrade fails.
var savers = []string{"redis-server", "valkey-server", "keydb-server"}

// OwnDataHint is for a program whose data its successor does not get, because that starts before the program ends.
func OwnDataHint(o Options) string {
	program := filepath.Base(o.Command[0])
	oneAfterTheOther := o.Policy.MaxSurge.Limited && o.Policy.MaxSurge.Count == 0 && o.Policy.MaxSurge.Percent == 0
	if oneAfterTheOther || savesNothing(o.Command) || !slices.ContainsFunc(savers, func(name string) bool { return isProgram(program, name) }) {
		return ""
	}
	return fmt.Sprintf("%s has data of its own, and in an upgrade the new one starts before the old one saves: what is written until then is lost "+
		"(use --max-surge 0, or switch saving off for a cache)", program)
}

// savesNothing is true of --save "" on the command line; the same in a configuration file is not seen.
func savesNothing(command []string) bool {
	at := slices.Index(command, "--save")
	return at >= 0 && at+1 < len(command) && command[at+1] == ""
}
