package childproc
import ("testing";"os";"os/exec";"fmt";"bufio";"net")
func init(){ roles["cost"]=func(){
	n:=0; fmt.Sscan(os.Getenv("N"),&n)
	l,_:=net.Listen("tcp","127.0.0.1:0")
	_ = l
	var keep []*os.File
	for i:=0;i<n;i++{ f,_:=os.Open("/etc/passwd"); keep=append(keep,f)}
	fmt.Println("x"); select{}
	_ = keep[0]
}}
func BenchmarkLook(b *testing.B){
 for _,n:=range []int{1,20,1000}{ b.Run(fmt.Sprint(n),func(b *testing.B){
	c:=exec.Command(os.Args[0]); c.Env=append(os.Environ(),"GRACE_TEST_ROLE=cost",fmt.Sprint("N=",n)); o,_:=c.StdoutPipe(); c.Start(); bufio.NewReader(o).ReadString('\n')
	defer c.Wait(); defer c.Process.Kill()
	l:=NewLookout([]uint64{1})
	b.ReportAllocs()
	for b.Loop() { if _,err:=l.Look([]int{c.Process.Pid}); err!=nil {b.Fatal(err)} }
 })
 b.Run(fmt.Sprint("tree",n),func(b *testing.B){ c:=exec.Command("sleep","100"); c.Start(); defer c.Wait(); defer c.Process.Kill();	b.ReportAllocs()
 for b.Loop() { if _,err:=Tree(c.Process.Pid); err!=nil {b.Fatal(err)} } })
 }
 b.Run("group",func(b *testing.B){ for b.Loop(){ Group(1)}})
}
