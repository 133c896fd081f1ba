package childproc

import "time"

// Usage is what some processes take of the machine.
type Usage struct {
	Resident int64         // bytes of memory; pages that they share count for each of them
	CPU      time.Duration // since they were started
}
