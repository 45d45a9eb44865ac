// Package reach tells who reaches whom: servers that say who they are and who asks, and a table of what
// each place must get from each address.
package reach
