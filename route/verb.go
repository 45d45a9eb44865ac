package route

// verb is one way to send a route.
type verb uint8

const (
	verbAdd verb = iota
	verbReplace
	verbChange
	verbAppend
	verbDelete
)
