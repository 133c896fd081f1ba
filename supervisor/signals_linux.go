package supervisor

// Go's runtime keeps 32 to 34 for the C library.
const (
	firstRealtime = 35
	lastRealtime  = 64
)
