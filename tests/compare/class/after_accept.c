// right: right, another service: report. It reaps when the next client comes.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define RCVBUFSIZE 512
#define MAXPENDING 5

void DieWithError(const char *errorMessage)
{
    perror(errorMessage);
    exit(1);
}

void HandleTCPClient(int clntSocket)
{
    char echoBuffer[RCVBUFSIZE];
    int recvMsgSize;
    if ((recvMsgSize = recv(clntSocket, echoBuffer, RCVBUFSIZE, 0)) < 0)
        DieWithError("recv() failed");
    while (recvMsgSize > 0) {
        if (send(clntSocket, echoBuffer, recvMsgSize, 0) != recvMsgSize)
            DieWithError("send() failed");
        if ((recvMsgSize = recv(clntSocket, echoBuffer, RCVBUFSIZE, 0)) < 0)
            DieWithError("recv() failed");
    }
    close(clntSocket);
}

int main(int argc, char *argv[])
{
    int servSock, clntSock, on = 1;
    struct sockaddr_in echoServAddr, clntAddr;
    unsigned int clntLen;
    if (argc != 2) {
        fprintf(stderr, "Usage:  %s <Server Port>\n", argv[0]);
        exit(1);
    }
    if ((servSock = socket(PF_INET, SOCK_STREAM, IPPROTO_TCP)) < 0)
        DieWithError("socket() failed");
    setsockopt(servSock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    memset(&echoServAddr, 0, sizeof(echoServAddr));
    echoServAddr.sin_family = AF_INET;
    echoServAddr.sin_addr.s_addr = htonl(INADDR_ANY);
    echoServAddr.sin_port = htons(atoi(argv[1]));
    if (bind(servSock, (struct sockaddr *)&echoServAddr, sizeof(echoServAddr)) < 0)
        DieWithError("bind() failed");
    if (listen(servSock, MAXPENDING) < 0)
        DieWithError("listen() failed");
    for (;;) {
        clntLen = sizeof(clntAddr);
        if ((clntSock = accept(servSock, (struct sockaddr *)&clntAddr, &clntLen)) < 0)
            DieWithError("accept() failed");
        printf("Handling client %s\n", inet_ntoa(clntAddr.sin_addr));
        pid_t processID = fork();
        if (processID < 0)
            DieWithError("fork() failed");
        if (processID == 0) {
            close(servSock);
            HandleTCPClient(clntSock);
            exit(0);
        }
        close(clntSock);
        while (waitpid((pid_t)-1, NULL, WNOHANG) > 0)
            ;
    }
}
