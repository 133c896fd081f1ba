package cmd

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const versionLong = `version shows the version of this program, the commit that it was built from, the version
of Go that built it, and the kernel that it runs on. grace status shows the version of a
running grace process, which may be another one.`

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of grace, its build and the kernel",
		Long:    versionLong,
		Example: "  grace version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			build, _ := debug.ReadBuildInfo() // nil in a program that was built without modules
			return printVersion(os.Stdout, build, kernel())
		},
	}
}

func printVersion(w io.Writer, build *debug.BuildInfo, kernel string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "grace %s\n", versionOf(build))
	if commit := commitOf(build); commit != "" {
		fmt.Fprintf(&b, "commit %s\n", commit)
	}
	fmt.Fprintf(&b, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if kernel != "" {
		fmt.Fprintf(&b, "kernel %s\n", kernel)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func version() string {
	build, _ := debug.ReadBuildInfo() // nil in a program that was built without modules
	return versionOf(build)
}

func versionOf(build *debug.BuildInfo) string {
	if build == nil || build.Main.Version == "" {
		return "(devel)"
	}
	return build.Main.Version
}

// commitOf is empty where the build has not stamped it, as with go install or -buildvcs=false.
func commitOf(build *debug.BuildInfo) string {
	if build == nil {
		return ""
	}
	set := map[string]string{}
	for _, s := range build.Settings {
		set[s.Key] = s.Value
	}
	if set["vcs.revision"] == "" {
		return ""
	}
	commit := set["vcs.revision"]
	if set["vcs.time"] != "" {
		commit += " of " + set["vcs.time"]
	}
	if set["vcs.modified"] == "true" {
		commit += ", with uncommitted changes"
	}
	return commit
}

// kernel is empty where the kernel does not tell.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	text := func(field []byte) string { return unix.ByteSliceToString(field) }
	return fmt.Sprintf("%s %s %s", text(name.Sysname[:]), text(name.Release[:]), text(name.Machine[:]))
}
