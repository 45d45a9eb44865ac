// Package protocol is what the machine and its guest tell each other: the jobs
// that the guest finds in its initramfs, and the records that it writes to its
// second serial port, one JSON object a line, where no kernel message can come
// between them.
package protocol

// JobsPath is where the guest finds its jobs, a [Work] in JSON.
const JobsPath = "/jobs.json"

// Port is the serial port of the records.
const Port = "/dev/ttyS1"

// Unprivileged is the argument that makes the guest's init drop every privilege
// and become the program behind it.
const Unprivileged = "unprivileged"

// UID is the user and the group of an unprivileged job: nobody.
const UID = 65534

// Work is what a guest does.
type Work struct {
	Modules []string // loaded before the first job, in this order
	Jobs    []Job
}

// Job is a program that the guest runs.
type Job struct {
	Name string   // said again in the records
	User bool     // as a normal user without any capability, instead of as root
	Dir  string   // the working directory
	Args []string // the program and its arguments
	Env  []string // all of its environment
}

// Event is the kind of a record.
type Event string

// The events, in their order. Alive may come anywhere in between.
const (
	Boot   Event = "boot"   // the guest is ready; Text is the kernel's release
	Start  Event = "start"  // job Job begins
	Output Event = "output" // job Job has written Text
	Exit   Event = "exit"   // job Job is over with Status
	Done   Event = "done"   // all jobs are over
	Alive  Event = "alive"  // nothing new, but the guest runs
	Fault  Event = "fault"  // the guest itself cannot go on; Text is the reason
)

// Record is one line of a guest.
type Record struct {
	Event  Event
	Job    int    `json:",omitempty"`
	Status int    `json:",omitempty"` // what the program exited with; 128 + n after signal n
	Text   string `json:",omitempty"`
}
