package host

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gracerun/grace/supervisor/machine"
)

// Whoever starts grace without a shell, such as systemd by WorkingDirectory=, leaves no PWD, and the kernel tells real
// names only: a link that is moved for a deploy is not followed. Which one was meant can be guessed, and a guess must not
// decide what is deployed. So it is watched where the links lead that could be meant.

// mostEntries bounds what is read of a directory in search of links.
const mostEntries = 4096

// linksTo finds the links that lead to a directory or to one above it, beside these directories, and where they lead.
func linksTo(dir string) map[string]string {
	links := map[string]string{}
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		for _, link := range linksIn(filepath.Dir(at)) {
			if to, err := filepath.EvalSymlinks(link); err == nil && (to == dir || strings.HasPrefix(dir, to+"/")) {
				links[link] = to
			}
		}
	}
	return links
}

// linksIn passes over a directory that cannot be read.
func linksIn(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(mostEntries) // what came before an error is of use
	var links []string
	for _, entry := range entries {
		if entry.Type()&fs.ModeSymlink != 0 {
			links = append(links, filepath.Join(dir, entry.Name()))
		}
	}
	return links
}

// movedLink says which link leads to another directory now than when the launch specification was made, or nothing.
func movedLink(r machine.LaunchSpec) string {
	for _, link := range slices.Sorted(maps.Keys(r.Links)) {
		to, err := filepath.EvalSymlinks(link)
		if err != nil || to == r.Links[link] {
			continue
		}
		if info, err := os.Stat(to); err == nil && info.IsDir() {
			return fmt.Sprintf("the working directory is %s, but the link %s, which led there, now leads to %s; grace was started without --chdir and without PWD, so it does not follow the link (restart grace with --chdir %s to follow it, or with --chdir %s to stay; until then, use grace upgrade NAME -- COMMAND with the whole path of the command)",
				r.Dir, link, to, link, r.Dir)
		}
	}
	return ""
}

// heedLinks refuses an upgrade that would start what runs already because nobody has told grace of a link that was
// moved. If it starts something new the log warns of the directory.
func (l *LaunchSpec) heedLinks(current *machine.LaunchSpec) error {
	if current == nil || current.Dir != l.Dir {
		return nil
	}
	moved := movedLink(*current)
	if moved != "" && current.RunsLike(l.LaunchSpec) {
		return fmt.Errorf("the upgrade would start what already runs: %s", moved)
	}
	l.stays = moved
	return nil
}
