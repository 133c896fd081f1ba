package kubernetes

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	programs = flag.String("programs", "", "the folder with Kubernetes' programs, grace, app, plain and pause, all static")
	logs     = flag.String("logs", "", "keep the logs of the cluster's programs in this folder")
	service  = flag.String("service", "", "be the clients of this address until standard input ends (for the test itself)")
	streams  = flag.Int("streams", 2, "with --service, how many of them follow event streams")
)

// patience bounds each wait; only a defect reaches it.
const patience = 5 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	switch {
	case *service != "":
		return 0, sendLoad(*service, *streams)
	case *programs == "":
		return 0, fmt.Errorf("there is no cluster without --programs: run scripts/test-kubernetes")
	case os.Getenv(inside) == "":
		return runInside()
	}
	if err := furnish(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
