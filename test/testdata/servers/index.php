<?php
if (str_starts_with($_SERVER["REQUEST_URI"], "/slow")) {
    usleep(300000);
}
header("X-Pid: " . getmypid());
echo "hello\n";
