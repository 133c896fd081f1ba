package machine

// Fact names one thing that can be said of what happens. How much it matters and its words stand beside the log.
type Fact int

// The facts. Two that differ in how much they matter, in what programs are told or in their words are two.
const (
	InstanceStarted        Fact = iota + 1
	InstanceReady               // it serves
	InstanceNotReady            // it starts, and takes its time
	InstanceEnded               // as it was told to
	InstanceFailed              // by itself; its generation did not serve, or something was short that grace needs too
	InstanceCrashed             // by itself, in the generation that serves
	InstanceWithdrawn           // it stops by itself
	InstanceRestarting          // another one takes the place of one that has ended
	RestartNotReady             // that one did not become ready in time
	DrainTimedOut               // an instance did not end in time, and is killed
	KillTimedOut                // that did not end it either
	WatchdogTimedOut            // no sign of life
	WatchdogLate                // grace itself could hear none
	MainProcessMoved            // another process is an instance's main one
	LeftoversTold               // what an instance has left behind is told to stop
	ReadinessUnseen             // it cannot be seen whether an instance is ready
	AppDescribed                // what the app says of itself
	FirstReady                  // the first generation serves
	FirstFailed                 // it does not, and grace ends
	GenerationReady             // a later one serves
	GenerationSharing           // it serves a share of the clients
	GenerationReplaced          // it can take over again
	GenerationWarm              // it can take over again if that is asked for
	SteeringFailed              // new connections do not go to a generation, and no other can have them
	GenerationEmptying          // it finishes what it has before it is told to stop
	ClientsAsked                // to close kept-alive connections
	KeptConnectionsEnded        // those that were open when a generation was replaced
	GenerationDraining          // it is told to stop
	GenerationToldToStop        // and was emptied before
	InstancesEmptying           // some of a generation that serves on: they finish what they have before they are told to stop
	InstancesDraining           // they are told to stop
	InstancesToldToStop         // and were emptied before
	InstancesDrained            // nothing is left of them
	InstancesKilled             // and something had to be killed
	DrainProgress               // how far it has come
	EmptyTimedOut               // it did not get idle in time
	GenerationDrained           // nothing is left of it
	GenerationKilled            // and something had to be killed
	FailedGenerationEnded       // nothing is left of one that did not come to serve, or not for long
	FailedGenerationKilled      // and something had to be killed
	UpgradeBegun                // a new generation is prepared
	UpgradeDone                 // it serves, and will not be undone
	UpgradeFailed               // it does not, and was given up
	RolledBack                  // it did, and the old one has taken over again because that was asked for
	UpgradeUndone               // it did, and the old one has taken over again
	UpgradeWaiting              // it is not begun yet
	UpgradeRefused              // it is not begun
	UpgradeSuperseded           // it gave way to a later one
	ServingPaused               // nothing serves, until the next instance is ready
	ServingResumed              // it is
	ScalingBegun                // there are to be more instances, or fewer
	Scaled                      // there are
	ScalingFailed               // more did not come to serve
	ScalingWaiting              // it is not begun yet
	ScalingRefused              // it is not begun
	InstanceUnfit               // it is to be replaced by a fresh one
	InstanceReplaced            // it was
	ReplacementFailed           // it was not, and serves on
	PromotionRefused            // no generation shares
	UpgradeForListener          // it is begun for a listener's sake
	Stopping                    // grace was told to stop
	StoppingAtOnce              // and not to wait for anything
	StopRepeated                // it was told so a second time
	ServingBeforeDrain          // it serves on for a while
	AppEnded                    // it has nothing left to do
	RestartsExhausted           // an instance would have to be restarted too often
	ListenerRevived             // a held listener was shut down, and listens again
	ListenerDead                // or does not
	ListenerShutDown            // the app has shut its own down
	CaptureMissing              // the app's own sockets cannot be captured, beside held ones
	CaptureFailed               // they cannot, so that there can be no upgrade
	ReexecWaiting               // grace is not replaced yet
	ReexecRefused               // it is not going to be
	ReexecUnsuccessful          // it could not be
	ReexecDone                  // another grace process takes over
	TakenOver                   // this one has
	Adopted                     // the app of one that was killed
	AppReleased                 // it runs on without grace
	ReleaseRefused              // it does not
	ServerFound                 // a process serves that grace has not started, and that is to be replaced
	ServerLeft                  // it serves on, without grace
	ChangeNoticed               // files have changed for which there is an upgrade
	TroubleNoticed              // somebody outside says what, and why
	facts
)

// Facts lists them all.
func Facts() []Fact {
	var all []Fact
	for f := InstanceStarted; f < facts; f++ {
		all = append(all, f)
	}
	return all
}
