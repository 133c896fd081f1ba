package farewell

// record is what the kernel's programs know of a connection that was announced. The filter of what comes in (requests.go)
// and the program for what goes out (answers.go) run at the same time: each field has one writer, or is added to.
type record struct {
	Arrived  uint32 // segments with data
	Requests uint32 // beginnings of requests; both programs add
	Last     uint32 // TCP's number of the last beginning: one that is sent again counts once
	Sent     uint32 // messages of the app; zero: it has been silent
	Answered uint32 // requests of which the last was answered
	Said     uint32 // answers that say that the connection closes
	Scanned  uint32 // how far the scan of a head has come
	UpTo     uint32 // where it ends
	Insert   uint32 // where the line goes
	Many     uint32 // requests came together
	Tunnel   uint32 // other than zero: no HTTP any more, or none that is understood
	Word     uint32 // who has spoken last, when that was asked for
}

// Where the programs find the fields.
const (
	fieldArrived  = 0
	fieldRequests = 4
	fieldLast     = 8
	fieldSent     = 12
	fieldAnswered = 16
	fieldSaid     = 20
	fieldScanned  = 24
	fieldUpTo     = 28
	fieldInsert   = 32
	fieldMany     = 36
	fieldTunnel   = 40
	fieldWord     = 44
	recordSize    = 48
)

// speaksHTTP tells whether this was seen to be HTTP/1: a request that was answered.
func (r record) speaksHTTP() bool { return r.Requests > 0 && r.Answered > 0 && r.Tunnel == 0 }
