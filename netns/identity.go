package netns

// ID identifies a namespace among those that exist: the device and inode number of its file
// (namespaces(7)). The kernel may use the inode number again when the namespace is gone,
// and never uses [NS.Cookie] again. IDs compare with ==.
type ID struct {
	Dev, Ino uint64
}

// Owner is the user namespace that owns a network namespace. A process with CAP_NET_ADMIN
// in it may configure the network namespace (user_namespaces(7)).
type Owner struct {
	ID  ID     // of the user namespace's file
	UID uint32 // the user that made it, by its id in the calling thread's user namespace
}
